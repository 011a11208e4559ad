"""Observables of gauge and scalar fields: loops, charge, energy, correlators, and what is made of their means."""

from .clover import charge_density as charge_density
from .clover import energy as energy
from .clover import energy_density as energy_density
from .clover import field_strength as field_strength
from .clover import topological_charge as topological_charge
from .loops import creutz_ratios as creutz_ratios
from .loops import polyakov_correlator as polyakov_correlator
from .loops import polyakov_loops as polyakov_loops
from .loops import wilson_loops as wilson_loops
from .paths import loop_traces as loop_traces
from .paths import path_products as path_products
from .scalar import binder as binder
from .scalar import correlation_length as correlation_length
from .scalar import correlator as correlator
from .scalar import effective_mass as effective_mass
from .scalar import magnetisation_moments as magnetisation_moments
from .scalar import pole_mass as pole_mass
from .scalar import propagator as propagator
from .scalar import susceptibility as susceptibility
from .scalar import topological_susceptibility as topological_susceptibility
from .scalar import two_point as two_point
from .transform import gauge_transform as gauge_transform
from .transform import random_transformation as random_transformation
from .transform import stout as stout
