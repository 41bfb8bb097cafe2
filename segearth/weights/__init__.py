"""Getting weight files: what there is (catalogue), fetching it (transfer, sources), knowing it is whole (checksums)."""
