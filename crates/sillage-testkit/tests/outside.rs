//! The reference broker passes the suites, where it assigns partitions as Kafka does and where it
//! leaves that to leases as RabbitMQ.

use sillage_core::{Broker, Database};
use sillage_testkit::{
    Memory, MemoryBroker, SystemClock,
    conformance::{BrokerFixture, ConsumerFixture},
};
use std::sync::Arc;

struct Outside {
    memory: Memory,
    broker: MemoryBroker,
}

impl Outside {
    fn assigning() -> Self {
        Outside::with(MemoryBroker::new(4, true))
    }

    fn leased() -> Self {
        Outside::with(MemoryBroker::new(4, false))
    }

    fn with(broker: MemoryBroker) -> Self {
        Outside { memory: Memory::new(Arc::new(SystemClock)), broker }
    }
}

impl BrokerFixture for Outside {
    async fn open(&self) -> Arc<dyn Broker> {
        Arc::new(self.broker.clone())
    }
}

impl ConsumerFixture for Outside {
    async fn database(&self) -> Arc<dyn Database> {
        Arc::new(self.memory.clone())
    }

    async fn broker(&self) -> Option<Arc<dyn Broker>> {
        Some(Arc::new(self.broker.clone()))
    }
}

mod assigning {
    use super::Outside;

    mod broker {
        use super::Outside;
        sillage_testkit::broker_conformance!(Outside::assigning());
    }

    mod consumer {
        use super::Outside;
        sillage_testkit::consumer_conformance!(Outside::assigning());
    }
}

mod leased {
    use super::Outside;

    mod broker {
        use super::Outside;
        sillage_testkit::broker_conformance!(Outside::leased());
    }

    mod consumer {
        use super::Outside;
        sillage_testkit::consumer_conformance!(Outside::leased());
    }
}
