"""Pictures of cassettes: charts made from a manifest or computed, and what draws them."""
