"""The command line: `genjax train | sample | evaluate | inspect | data`."""
