"""Tables as people have them: text of any dialect, Excel, Parquet, long, BIDS, FreeSurfer.

===============================  =============================================================
:mod:`.reading`                  one file, whatever its format, as a table of cells
:mod:`.dialect`                  what may be said of a file: sheet, encoding, separator, decimal
:mod:`.ids`                      whose rows these are, if ids are not written alike
:mod:`.long`                     one row a person and region turned into one row a person
:mod:`.sessions`                 BIDS ``sessions.tsv``: which visit, and what is known of it
:mod:`.freesurfer`               ``stats`` folders of ``recon-all``
:mod:`.freesurfer_names`         FreeSurfer's names of regions, and the atlas's
:mod:`.enigma`                   ENIGMA's names of regions, and the atlas's
:mod:`.described`                BIDS ``participants.json``: units and levels of columns
===============================  =============================================================
"""
