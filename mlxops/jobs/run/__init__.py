"""Jobs on runs: listing, showing, comparing, annotating, exporting, removing."""
