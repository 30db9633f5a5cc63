"""Native data set layouts -> Parquet manifests and packed pictures. Every quirk of a data set ends here."""
