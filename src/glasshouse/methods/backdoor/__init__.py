"""Was a backdoor planted in the projector, where does it live, how does it fire, and can it be cut out?"""
