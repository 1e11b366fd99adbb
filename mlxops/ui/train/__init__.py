"""What training and its monitor draw."""
