-- A site's protocols are history: programs add them, and say once when one is used no more. Run by 0013_protocols.py, as the owner.

REVOKE ALL ON site_protocols FROM PUBLIC;
GRANT SELECT, INSERT, UPDATE (retired_at) ON site_protocols TO countersign_app;

-- Behind the missing privileges, for whoever connects as the owner.
CREATE FUNCTION refuse_protocol_change() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public AS $$
BEGIN
  IF TG_OP = 'UPDATE' AND OLD.retired_at IS NULL AND NEW.retired_at IS NOT NULL
     AND to_jsonb(NEW) - 'retired_at' = to_jsonb(OLD) - 'retired_at' THEN
    RETURN NEW;
  END IF;
  RAISE EXCEPTION '% on % is refused: a protocol can only be retired, once', TG_OP, TG_TABLE_NAME
    USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER only_retired BEFORE UPDATE OR DELETE ON site_protocols FOR EACH ROW EXECUTE FUNCTION refuse_protocol_change();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON site_protocols FOR EACH STATEMENT EXECUTE FUNCTION refuse_protocol_change();
