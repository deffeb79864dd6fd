"""What is wrong with a collection of pictures, found before any network runs."""
