"""Tables: rows of samples and columns of numbers or words, in CSV and Parquet files.

From a file up: `table_file` is what a reader gives; `csv_files` and `parquet_files` are readers;
`layout` says which columns are what, `preparation` how they become inputs, `parts` reads them so,
`task` finds what is to be learnt, `loading` puts a table into memory, and `long_table` leaves one
on the disk.
"""
