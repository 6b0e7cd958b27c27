SELECT epoch FROM leases WHERE name = ?1
