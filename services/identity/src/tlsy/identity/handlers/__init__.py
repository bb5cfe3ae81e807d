"""When things happen: one file per RPC, consumed event or duty; one transaction each."""
