"""What every source is published with: the loop, the journal, the ledger of frames."""
