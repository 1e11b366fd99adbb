"""Jobs: where nouns meet. One function a job calls the packages of row 1 in order and passes values between them."""
