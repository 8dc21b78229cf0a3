"""Downloads where a licence allows them."""
