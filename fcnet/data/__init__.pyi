# The public names: read by type checkers and editors, and by `fcnet.lazy`, which imports each when it is asked for.

from fcnet.data import inputs as inputs
from fcnet.data.catalogue import NAMES as NAMES
from fcnet.data.chunks import from_chunks as from_chunks
from fcnet.data.dataset import Dataset as Dataset
from fcnet.data.fetching import fetch as fetch
from fcnet.data.loading import load as load
from fcnet.data.plan import Plan as Plan
from fcnet.data.preprocessing import KINDS as KINDS
from fcnet.data.preprocessing import Preprocessing as Preprocessing
from fcnet.data.preprocessing import learn as learn
from fcnet.data.splits import stratified_split as stratified_split
from fcnet.data.synthetic import spirals as spirals
from fcnet.data.table import read_features as read_features
