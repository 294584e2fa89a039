r"""What the chapters run: data, experiments and the reference answers of the exercises."""

# plain imports, because `digits` and `sweep` name modules, too: this way the names are always the functions
from lora_course.labs.allocation import Allocated, AllocationExperiment
from lora_course.labs.cnn import STAGES, activations, small_cnn
from lora_course.labs.cnn_tuning import finetune_convolutions
from lora_course.labs.digits import Digits, digits
from lora_course.labs.experiment import LoRAExperiment, Trained
from lora_course.labs.family import METHODS, Race, adapted, race
from lora_course.labs.gauge_experiment import GaugeExperiment, GaugeRun
from lora_course.labs.gauge_flow import Flow, gradient_flow
from lora_course.labs.gauge_modules import LoRAFiberBundle, LoRAGaugeField
from lora_course.labs.gauge_training import GaugeRace, gauge_race, low_rank_target
from lora_course.labs.magnitude_sweep import MagnitudeRun, magnitude_sweep
from lora_course.labs.memory import Memory, memorize
from lora_course.labs.models import digit_network, mlp
from lora_course.labs.projections import (
    DenseProjection,
    FastfoodProjection,
    dense_projection,
    fastfood_projection,
    walsh_hadamard,
)
from lora_course.labs.subspace import d90, fit_in_subspace
from lora_course.labs.subspace_sweep import SubspaceExperiment, SubspaceRun
from lora_course.labs.sweep import SweepError, grid, sweep
from lora_course.labs.synthetic import TeacherStudent, random_facts, teacher_student
from lora_course.labs.training import accuracy, fit, mean_loss
from lora_course.labs.two_rates import two_rates

__all__ = [
    "Digits",
    "digits",
    "mlp",
    "digit_network",
    "fit",
    "accuracy",
    "mean_loss",
    "grid",
    "sweep",
    "SweepError",
    "LoRAExperiment",
    "Trained",
    "dense_projection",
    "DenseProjection",
    "fastfood_projection",
    "FastfoodProjection",
    "walsh_hadamard",
    "fit_in_subspace",
    "SubspaceExperiment",
    "SubspaceRun",
    "d90",
    "random_facts",
    "Memory",
    "memorize",
    "teacher_student",
    "TeacherStudent",
    "small_cnn",
    "activations",
    "STAGES",
    "finetune_convolutions",
    "AllocationExperiment",
    "Allocated",
    "magnitude_sweep",
    "MagnitudeRun",
    "two_rates",
    "adapted",
    "race",
    "Race",
    "METHODS",
    "LoRAGaugeField",
    "LoRAFiberBundle",
    "gradient_flow",
    "Flow",
    "low_rank_target",
    "gauge_race",
    "GaugeRace",
    "GaugeExperiment",
    "GaugeRun",
]
