"""Detector data: LArPix packets in and out, channel maps, clocks, event building, constants of every channel."""

from .channel_map import Address as Address
from .channel_map import ChannelMap as ChannelMap
from .channel_map import Tile as Tile
from .channels import Channels as Channels
from .clock import Clock as Clock
from .events import EventRule as EventRule
from .format import PACKET as PACKET
from .jax_hits import read_jax_hits as read_jax_hits
from .read import iterate_packets as iterate_packets
from .read import read_packets as read_packets
from .read import read_truth as read_truth
from .write import write_packets as write_packets
from .write import write_raw as write_raw
