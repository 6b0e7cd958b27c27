-- A commit that expects a document to be absent, and does not put it, holds its place until it ends: a row
-- of version -1 that nobody sees, for the statement that makes it takes it back.
CREATE FUNCTION "sillage".let_go() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM "sillage".documents
    WHERE collection = NEW.collection AND id = NEW.id AND version < 0;
    RETURN NULL;
END
$$;

CREATE TRIGGER let_go AFTER INSERT ON "sillage".documents
FOR EACH ROW WHEN (NEW.version < 0) EXECUTE FUNCTION "sillage".let_go();
