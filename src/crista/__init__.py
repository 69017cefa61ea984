"""crista: semantic segmentation for microscopy.

The folders, in the order that data flow:

    config          ASK      what the user wants
    images          READ     a file -> Image
    plan            DECIDE   Config + fingerprint -> Plan: every number, each with its reason
    patches         CUT      image pair -> samples
    augmentations   VARY     sample -> sample
    models          MODEL    batch -> logits
    losses          COMPARE  logits, target -> scalar
    training        LEARN    Plan -> checkpoints
    inference       PREDICT  Image -> probabilities -> label image
    postprocessing  CLEAN    median filters
    metrics         MEASURE  label images -> numbers
    results         SHOW     run folder, tables, charts, report

`workflow` tells the whole story as one generator of events; `cli` is a thin shell over it.
"""

__version__ = "0.1.0"
