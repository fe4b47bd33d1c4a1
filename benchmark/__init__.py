"""How families are compared: protocols, studies, training, statistics, reports. Imports families,
never the other way."""
