"""What every service shares and that knows none of them."""
