"""What is read from and written to the tables of accounts; each file has one kind of rows."""
