"""A source that gives what lies in a folder, and its test; the word templatefs stands for the scheme."""
