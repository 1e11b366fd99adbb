"""Jobs on projects."""
