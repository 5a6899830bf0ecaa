#!/usr/bin/env bash
# WFDB reads the lowest code of an ADC as a missing sample.
#
# Guess: A 16-bit record written from digital samples -32768 to 32767 reads back as the same numbers times the gain.
# Seen: -32768 comes back as NaN, and -2048 in the 12-bit format 212 as well: the lowest code is the format's mark
# for missing data, also where a saturated ADC really delivered it.
# labhub: A clipped electrode looks like a dropout after an export to WFDB. Whoever exports must count saturated
# samples before, or use a wider format.
# Versions: wfdb==4.3.1, numpy==2.4.6; Python 3.11 or newer.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check 'wfdb==4.3.1' 'numpy==2.4.6'
cd "$work"
timeout 120 "$work/env/bin/python" -W ignore - <<'PY'
import numpy as np
import wfdb

for code, fmt in ((-32768, "16"), (-2048, "212")):
    digital = np.array([[code], [1], [2], [-code - 1]])
    wfdb.wrsamp("ecg", fs=250, units=["mV"], sig_name=["II"], d_signal=digital, fmt=[fmt], adc_gain=[200.0], baseline=[0])
    physical = wfdb.rdrecord("ecg").p_signal.ravel()
    print("format", fmt, "sent", digital.ravel().tolist(), "read", (physical * 200).tolist())
    assert np.isnan(physical[0]) and np.allclose(physical[1:] * 200, digital.ravel()[1:]), "wfdb has changed"
    assert wfdb.rdrecord("ecg", physical=False).d_signal.ravel().tolist() == digital.ravel().tolist()
PY
