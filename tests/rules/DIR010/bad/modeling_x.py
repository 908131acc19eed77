raise SystemExit("this code must never run")
