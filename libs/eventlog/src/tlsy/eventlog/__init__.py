"""CloudEvents codec, outbox relay, inbox, consumer loop, dead letters, re-publication."""
