"""The job of `cospan bench peers` as users of other frameworks write it; each module needs its framework."""
