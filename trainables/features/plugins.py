"""The registries of this package with every plug-in in them: a module of plug-ins is named here."""

from trainables.features import distributions as distributions
from trainables.features import frozen as frozen
from trainables.features import handmade as handmade
from trainables.features import linear as linear
from trainables.features import maml as maml
from trainables.features import nearest as nearest
from trainables.features import oversampling as oversampling
from trainables.features import shallow as shallow
from trainables.features.classifiers import CLASSIFIERS as CLASSIFIERS
from trainables.features.extractors import EXTRACTORS as EXTRACTORS
from trainables.features.synthesis import SYNTHESES as SYNTHESES
