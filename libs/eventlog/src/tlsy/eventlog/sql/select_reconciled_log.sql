select reconciled_log from __service__.relay_state for update
