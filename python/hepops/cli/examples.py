"""An example for the end of each command's help; a test runs their command lines through the parser."""

EXAMPLES = {
    "demo": "hepops demo -o my-demo",
    "gun": "hepops gun -o tracks.h5 --number 6 --particle proton --energy 100:200 --topology inside --seed 1",
    "simulate": "hepops simulate tracks.h5 -o hits.h5 -p lifetime=1500 -p efield=0.48",
    "calibrate": "hepops calibrate hits.h5 --tracks tracks.h5 -o fit --fit lifetime,efield",
    "display": "hepops display hits.h5 --tracks tracks.h5 --event 3 -o event.png",
    "merge": "hepops merge hits_0.h5 hits_1.h5 -o hits.h5",
    "segment": "hepops segment -o segmentation --events 40 --test-events 10 --epochs 2 --filters 4 --depth 3",
    "export": "hepops export segmentation -o model.pt2",
    "run": "hepops run model.pt2 voxels.h5 -o labels.h5",
    "posterior": "hepops posterior -o posterior --simulations 500 --held-out 50",
    "info": "hepops info tracks.h5 hits.h5",
    "reproduce": "hepops reproduce hits.h5",
    "export-packets": "hepops export-packets hits.h5 -o packets.h5 --tracks tracks.h5",
    "import-packets": "hepops import-packets packets.h5 -o hits.h5",
}
