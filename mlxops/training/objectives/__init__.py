"""What training minimizes: `terms` says what an objective is, and each other module is one of them."""
