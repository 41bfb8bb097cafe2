"""Getting weight files: what there is (records, encoders, upsamplers), from where (sources), fetching it (transfer)."""
