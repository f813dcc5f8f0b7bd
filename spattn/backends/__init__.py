"""Backends: each makes a layout run. Strangers to one another; `registry` names them."""
