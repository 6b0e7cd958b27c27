//! The bugs, and who has to find them.

/// A bug to be planted.
pub(super) struct Bug {
    pub(super) name: &'static str,
    /// In which file what is replaced by what.
    pub(super) edits: &'static [(&'static str, &'static str, &'static str)],
    /// What follows `cargo test`: one test.
    pub(super) test: &'static str,
}

pub(super) const BUGS: [Bug; 6] = [
    Bug {
        name: "Kafka: each message is settled when it is finished",
        edits: &[(
            "crates/sillage-kafka/src/receiver/assignments.rs",
            "let watermark = settled.watermark?.0;",
            "let watermark = settled.finished.iter().max()?.0;",
        )],
        test: "-p sillage-kafka --test kafka \
               conformance::broker::the_settled_place_never_passes_what_is_unfinished",
    },
    Bug {
        name: "Kafka: what was lost is settled",
        edits: &[
            (
                "crates/sillage-kafka/src/receiver/assignments.rs",
                "if !place.announced || !delivered || watermark < place.settled {",
                "if !delivered || watermark < place.settled {",
            ),
            (
                "crates/sillage-kafka/src/receiver/poller.rs",
                "list.map(|list| self.consumer.store_offsets(&list));",
                "list.map(|list| self.consumer.commit(&list, rdkafka::consumer::CommitMode::Async));",
            ),
        ],
        test: "-p sillage-kafka --test kafka group::what_is_lost_is_told_and_settles_nothing",
    },
    Bug {
        name: "Kafka: auto.offset.reset=earliest",
        edits: &[(
            "crates/sillage-kafka/src/config.rs",
            r#"("auto.offset.reset", "error")"#,
            r#"("auto.offset.reset", "earliest")"#,
        )],
        test: "-p sillage-kafka --test kafka \
               foreign::offsets_that_go_while_it_is_paused_stop_the_partition_by_name",
    },
    Bug {
        name: "RabbitMQ: acknowledging one acknowledges all before it",
        edits: &[(
            "crates/sillage-rabbitmq/src/settler.rs",
            "multiple: ack.up_to",
            "multiple: true",
        )],
        test: "-p sillage-rabbitmq --test conformance \
               broker::the_settled_place_never_passes_what_is_unfinished",
    },
    Bug {
        name: "RabbitMQ: a partition is handed over by cancelling",
        edits: &[
            (
                "crates/sillage-rabbitmq/src/connection.rs",
                r#"let closed = timeout(CLOSE, self.channel.close(200, "done".into())).await;"#,
                "let tag = self.deliveries.as_ref().map(Consumer::tag).unwrap_or_default(); \
                 let options = BasicCancelOptions::default(); \
                 let closed = timeout(CLOSE, self.channel.basic_cancel(tag, options)).await;",
            ),
            (
                "crates/sillage-rabbitmq/src/connection.rs",
                r#"let _ = Box::pin(self.channel.close(200, "dropped".into())).now_or_never();"#,
                r#"let channel = self.channel.clone(); tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    channel.close(200, "later".into()).await
                });"#,
            ),
        ],
        test: "-p sillage-rabbitmq --test broker hand_over::order_survives_hand_overs_under_load",
    },
    Bug {
        name: "the relay goes on past what was not confirmed",
        edits: &[
            ("crates/sillage/src/runtime/relay.rs", "outlet: Outlet,", "outlet: Arc<Outlet>,"),
            (
                "crates/sillage/src/runtime/relay.rs",
                "(Outlet::new(broker), Chain::new(database))",
                "(Arc::new(Outlet::new(broker)), Chain::new(database))",
            ),
            (
                "crates/sillage/src/runtime/relay.rs",
                r#"Some(Err(PublishError::Unknown(error))) => Err(Failure::unavailable("broker", error)),"#,
                r"Some(Err(PublishError::Unknown(_))) => {
                    let again = Arc::new(self.with_sequence(context).await?);
                    let outlet = self.outlet.clone();
                    tokio::spawn(async move {
                        loop {
                            tokio::time::sleep(Duration::from_millis(100)).await;
                            if outlet.publish(vec![again.clone()]).await[0].is_ok() {
                                break;
                            }
                        }
                    });
                    Ok(())
                }",
            ),
        ],
        test: "-p sillage-rabbitmq --test conformance \
               consumer::cuts_between_app_and_broker_lose_double_and_reorder_nothing",
    },
];

#[cfg(test)]
mod tests {
    use super::BUGS;
    use crate::process;

    #[test]
    fn every_bug_has_its_place_in_the_source() {
        for bug in &BUGS {
            for (file, right, _) in bug.edits {
                let source = std::fs::read_to_string(process::root().join(file)).unwrap();
                assert_eq!(source.matches(right).count(), 1, "{}: {file}: {right}", bug.name);
            }
        }
    }
}
