"""Native data set layouts -> manifests and packed pictures. Every quirk of a data set ends here."""
