"""What one request, one address and one user may ask of a process."""
