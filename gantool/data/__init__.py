"""From files and downloads to batches on the device."""
