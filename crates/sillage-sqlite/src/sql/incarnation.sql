SELECT value FROM meta WHERE key = 'incarnation'
