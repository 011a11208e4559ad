"""Constants of a light readout: channels, scintillation, SiPMs, trigger, digitiser; built in, or of larnd-sim's files.

ADC values are those of larnd-sim: 16 bits, signed, of which a digitiser of n bits keeps the upper n. Pulses of
module0 and of the 2x2 are negative, and so are gains and thresholds.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from .._model import Record, nearest

Share = Annotated[float, Field(ge=0, le=1)]
ADC_BITS = 16  # of the scale in which ADC values are given

# Keys of the files, in lower case, and the fields that they set.
_KEYS = {
    "singlet_fraction": "singlet_fraction", "tau_s": "tau_s", "tau_t": "tau_t", "op_channel_efficiency": "efficiency",
    "light_tick_size": "tick", "light_window": "window", "light_gain": "gain", "light_response_time": "response_time",
    "light_oscillation_period": "oscillation_period", "impulse_tick_size": "impulse_tick",
    "light_det_noise_sample_spacing": "noise_spacing", "op_channel_per_det": "channels_per_sum",
    "enable_lut_smearing": "smearing", "light_trig_window": "trigger_window",
    "light_digit_sample_spacing": "sample_spacing", "light_nbit": "bits",
}  # fmt: skip
_OTHER = {"n_op_channel", "tpc_to_op_channel", "light_trig_threshold", "light_trig_mode", "sipm_response_model"}


class LightProperties(Record):
    """Constants of a light readout; the defaults are larnd-sim's.

    Example:
        >>> properties = LightProperties.module0()
        >>> properties.num_channels, properties.channels_per_tpc, properties.ticks
        (96, 48, 11000)
    """

    tpc_to_channel: Annotated[tuple[tuple[int, ...], ...], Field(min_length=1)]  # channels of each TPC
    efficiency: tuple[Share, ...]  # photons at the detector -> photoelectrons, one per channel [1]
    gain: tuple[float, ...]  # area of a photoelectron's pulse, one per channel [ADC us]
    singlet_fraction: Share = 0.3  # of electrons and muons [1]
    tau_s: PositiveFloat = 0.001  # decay time of the singlet [us]
    tau_t: PositiveFloat = 1.530  # decay time of the triplet [us]
    tick: PositiveFloat = 0.001  # of the simulation [us]
    window: tuple[NonNegativeFloat, PositiveFloat] = (1.0, 10.0)  # simulated before and after the first deposit [us]
    response_time: PositiveFloat = 0.055  # of the SiPM's damped oscillation [us]
    oscillation_period: PositiveFloat = 0.095  # likewise, in radians [us]
    impulse: Literal["damped", "measured"] = "damped"  # the built-in one, or samples that the simulator is to be given
    impulse_tick: PositiveFloat = 0.01  # of a measured impulse [us]
    smearing: bool = False  # whether the file wants a table's time profile: VisibilityTable(..., delay="profile")
    noise_spacing: PositiveFloat = 0.01  # of the samples of which a noise spectrum was taken [us]
    channels_per_sum: PositiveInt = 6  # summed for the trigger
    threshold: tuple[float, ...]  # on the sums, one each; the sign is the pulses' [ADC]
    trigger: Literal["threshold", "beam"] = "threshold"
    coincidence: PositiveInt = 1  # sums that must be beyond their thresholds
    coincidence_window: NonNegativeFloat = 0.0  # within this time [us]
    trigger_window: tuple[NonNegativeFloat, PositiveFloat] = (0.9, 1.66)  # read out before and after the trigger [us]
    sample_spacing: PositiveFloat = 0.01  # of the digitiser [us]
    bits: Annotated[int, Field(ge=1, le=ADC_BITS)] = 10
    baseline: float = 0.0  # [ADC]

    @classmethod
    def module0(cls) -> Self:
        """Two TPCs with 48 channels each: eight detectors of six SiPMs, LCMs and ArCLights in turn.

        Of larnd-sim's file for module0 are the scintillation constants, the efficiency .38, the trigger (LCMs alone)
        and the digitiser; the gains are -5.7 ADC us (LCMs) and -55 (ArCLights), about the means of its.
        """
        n, never = 96, -9e9
        return cls(
            tpc_to_channel=(tuple(range(48)), tuple(range(48, 96))),
            efficiency=(0.38,) * n,
            gain=((-5.7,) * 6 + (-55.0,) * 6) * 8,
            singlet_fraction=0.375,
            tau_t=0.752,
            threshold=(-1500.0, never) * 8,
        )

    @classmethod
    def uniform(cls, tpcs: int, channels: int, **values: Any) -> Self:
        """`channels` channels in each of `tpcs` TPCs, all alike; `values` are fields, scalars for every channel."""
        n = tpcs * channels
        per_sum = values.get("channels_per_sum", 6 if channels % 6 == 0 else 1)
        made: dict[str, Any] = {"efficiency": 1.0, "gain": -7.0, "threshold": -1500.0, "channels_per_sum": per_sum}
        made |= values
        for name, count in (("efficiency", n), ("gain", n), ("threshold", n // per_sum)):
            if isinstance(made[name], (int, float)):
                made[name] = (float(made[name]),) * count
        rows = tuple(tuple(range(t * channels, (t + 1) * channels)) for t in range(tpcs))
        return cls(tpc_to_channel=rows, **made)

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Of larnd-sim's detector properties; keys that do not concern light are left to `Detector.from_yaml`.

        Raises:
            ValueError: a light_ key that is unknown, or a value without meaning, named with its file.
            FileNotFoundError: no such file.
        """
        import yaml

        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: no such file")
        try:
            content = yaml.safe_load(Path(path).read_text())
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
        if not isinstance(content, dict) or "n_op_channel" not in content or "tpc_to_op_channel" not in content:
            raise ValueError(f"{path}: has no light readout: n_op_channel and tpc_to_op_channel are needed")
        for key in content:
            if str(key).startswith("light_") and key not in _KEYS and key not in _OTHER and key != "light_simulated":
                raise ValueError(f"{path}: unknown key {key!r}, {nearest(key, [*_KEYS, *_OTHER])}")
        try:
            return cls(**_fields(content))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: {error}") from None

    @property
    def num_channels(self) -> int:
        """Channels of all TPCs."""
        return len(self.efficiency)

    @property
    def channels_per_tpc(self) -> int:
        """Channels of one TPC; all have as many."""
        return len(self.tpc_to_channel[0])

    @property
    def ticks(self) -> int:
        """Ticks of the simulated window."""
        return round(sum(self.window) / self.tick)

    @property
    def sample(self) -> int:
        """Ticks of one sample of the digitiser."""
        return round(self.sample_spacing / self.tick)

    @property
    def samples(self) -> int:
        """Samples that are read out at a trigger."""
        return int(sum(self.trigger_window) / self.sample_spacing + 1e-6)

    @property
    def lsb(self) -> int:
        """The digitiser's step [ADC]."""
        return 1 << (ADC_BITS - self.bits)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        n = self.num_channels
        flat = sorted(c for row in self.tpc_to_channel for c in row)
        if flat != list(range(n)):
            missing = sorted(set(range(n)) - set(flat))
            what = f"channel {missing[0]} belongs to no TPC" if missing else f"it holds {len(flat)} channels for {n}"
            raise ValueError(f"tpc_to_channel must hold channels 0 to {n - 1} once each: {what}")
        if len({len(row) for row in self.tpc_to_channel}) > 1:
            raise ValueError(f"every TPC must have as many channels, got {[len(row) for row in self.tpc_to_channel]}")
        if len(self.gain) != n:
            raise ValueError(f"gain must hold one number per channel, {n}, got {len(self.gain)}")
        if self.channels_per_tpc % self.channels_per_sum:
            raise ValueError(
                f"channels_per_sum must divide the {self.channels_per_tpc} of a TPC, got {self.channels_per_sum}"
            )
        if len(self.threshold) != n // self.channels_per_sum:
            raise ValueError(
                f"threshold must hold one number per sum of {self.channels_per_sum} channels, "
                f"{n // self.channels_per_sum}, got {len(self.threshold)}"
            )
        if abs(self.sample_spacing / self.tick - self.sample) > 1e-6 * self.sample or self.sample < 1:
            raise ValueError(
                f"sample_spacing must be a whole number of ticks of {self.tick} us, got {self.sample_spacing}"
            )
        return self


def _fields(content: dict[Any, Any]) -> dict[str, Any]:
    """The files' keys as fields: one number for all channels becomes one each."""
    values: dict[str, Any] = {field: content[key] for key, field in _KEYS.items() if key in content}
    n = int(content["n_op_channel"])
    values["tpc_to_channel"] = content["tpc_to_op_channel"]
    values.setdefault("gain", -2.30)
    values.setdefault("efficiency", 1.0)
    per_sum = int(values.get("channels_per_sum", 6))
    values["threshold"] = content.get("light_trig_threshold", -1500.0)
    for name, count in (("efficiency", n), ("gain", n), ("threshold", n // per_sum)):
        if not isinstance(values[name], list):
            values[name] = [values[name]] * count
    if len(values["efficiency"]) != n:
        raise ValueError(f"op_channel_efficiency must hold {n} numbers, got {len(values['efficiency'])}")
    values["threshold"] = [float(t) for t in values["threshold"]]  # "-9e+9" is a string to YAML
    if int(content.get("light_trig_mode", 0)) not in (0, 1):
        raise ValueError(f"light_trig_mode must be 0 or 1, got {content['light_trig_mode']}")
    values["trigger"] = ("threshold", "beam")[int(content.get("light_trig_mode", 0))]
    if int(content.get("sipm_response_model", 0)) not in (0, 1):
        raise ValueError(f"sipm_response_model must be 0 or 1, got {content['sipm_response_model']}")
    values["impulse"] = ("damped", "measured")[int(content.get("sipm_response_model", 0))]
    return values
