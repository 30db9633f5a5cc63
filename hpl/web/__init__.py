"""The page on which a gallery is searched in a browser: `hpl serve GALLERY`. No script, no request to another host."""
