"""How fast LatentQ is: commands that measure, each against what it is compared with."""
