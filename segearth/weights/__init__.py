"""Getting weight files: what there is (catalogue.json, records, encoders), from where (sources), by what (transfer)."""
