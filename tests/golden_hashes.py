"""Fingerprints of masks, by the names of ``mask_hashes.CALLS``. See test_golden.py before you
change one."""

GOLDEN = {
    "white noise": "d1557e4a10384589",
    "red noise": "018cefb5228c1008",
    "blue noise": "f76867f515b79cc5",
    "green noise": "5dd8ee38892227fe",
    "random masks": "11396178bcf27009",
    "tube masks": "a452a60ae5eb6c5a",
    "red2d masks": "169203adb72920fd",
    "blue3d masks": "a4c6ae9d4899ff25",
    "green3d masks": "532706111062c1c2",
    "green3d variant-3 masks": "c6457b676cd3dc53",
    "audio green masks": "1c36b55dd4995c13",
    "rbn masks": "5c73a58d8963e913",
    "rbn random masks": "1841980f5526e0c2",
    "small masks": "d03c2c5025ce2585",
    "small rbn": "f78d58333a972824",
    "rbn overfull bank": "2c0e0557db6ac1ad",
    "grid masks": "a725840da476f2a6",
    "block masks": "b79fc35a17875416",
    "inverse_block masks": "5f0ef7bee2bbe57a",
    "time_frequency masks": "1de5487c1e6e2f75",
    "video and audio": "521e9614be798ebf",
    "video and audio, hidden time": "c17ba0c7b0ab6087",
    "threshold": "1b8357a69f0360df",
}
