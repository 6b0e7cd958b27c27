INSERT INTO streams (name, version) VALUES (?1, 1)
