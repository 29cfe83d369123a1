"""Tables in batches of rows: a site's CSV or Parquet file, folder of them, data frame or Minari dataset.

`batch` has what every table can do, the others one kind each, and `sites` finds the tables of a fleet by name.
"""
