-- Decisions about conflicts are append-only, and an erasure blanks their reasons. Run by 0007_decisions.py, as the owner.

GRANT SELECT, INSERT ON conflict_decisions TO countersign_app;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON conflict_decisions FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON conflict_decisions FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- As in 0001, with the new table and its words.
CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public AS $$
DECLARE
  words text[] := ARRAY['body', 'provenance', 'flags', 'prompt', 'completion', 'tokens', 'comment', 'reasons', 'reason', 'erased_at'];
BEGIN
  IF TG_OP = 'UPDATE'
     AND TG_TABLE_NAME IN ('drafts', 'draft_steps', 'report_revisions', 'signatures', 'conflict_decisions')
     AND current_setting('countersign.erasing', true) = 'on'
     AND to_jsonb(NEW) - words = to_jsonb(OLD) - words
     AND NOT EXISTS (SELECT FROM jsonb_each_text(to_jsonb(NEW)) w
                     WHERE w.key = ANY (words) AND w.key <> 'erased_at' AND coalesce(w.value, '') NOT IN ('', '{}', '[]')) THEN
    RETURN NEW;
  END IF;
  RAISE EXCEPTION '% on % is refused: it is append-only', TG_OP, TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;

-- As in 0001, with the reasons of decisions.
CREATE OR REPLACE FUNCTION erase_study(study uuid, event uuid, actor_kind text, actor uuid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE
  site uuid;
  patient uuid;
BEGIN
  SELECT s.site_id, s.patient_id_key INTO site, patient FROM studies s WHERE s.id = study FOR UPDATE;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'there is no study %', study USING ERRCODE = 'no_data_found';
  END IF;
  PERFORM set_config('countersign.erasing', 'on', true);
  UPDATE drafts d SET body = '', provenance = '{}', flags = '{}', erased_at = now() WHERE d.study_id = study AND d.erased_at IS NULL;
  UPDATE draft_steps t SET prompt = '', completion = '', tokens = '{}'
    FROM drafts d WHERE d.id = t.draft_id AND d.study_id = study;
  UPDATE report_revisions v SET body = '', comment = NULL, erased_at = now()
    FROM reports r WHERE r.id = v.report_id AND r.study_id = study AND v.erased_at IS NULL;
  UPDATE signatures g SET reasons = '{}' FROM reports r WHERE r.id = g.report_id AND r.study_id = study;
  UPDATE conflict_decisions c SET reason = '' WHERE c.study_id = study;
  PERFORM set_config('countersign.erasing', 'off', true);
  -- What is under way ends; a signed report stays signed, without its words. Both lives allow these moves.
  UPDATE reports SET state = 'cancelled', updated_at = now() WHERE study_id = study AND state IN ('draft', 'preliminary');
  UPDATE reports SET ended_reason = NULL WHERE study_id = study;
  UPDATE readings SET state = 'superseded', lease_until = NULL, lease_owner = NULL, ended_at = now(), updated_at = now()
    WHERE study_id = study AND state NOT IN ('done', 'superseded');
  UPDATE readings SET reason = NULL, omitted = NULL WHERE study_id = study;
  INSERT INTO store_deletions (kind, key)
    SELECT 'instances', replace(i.id::text, '-', '') FROM instances i
    WHERE i.study_id = study AND i.duplicate_of_id IS NULL AND i.erased_at IS NULL;
  INSERT INTO store_deletions (kind, key)
    SELECT DISTINCT 'pictures', p.sha256 FROM reading_pictures p JOIN readings r ON r.id = p.reading_id
    WHERE r.study_id = study AND NOT EXISTS (
      SELECT FROM reading_pictures o JOIN readings q ON q.id = o.reading_id
      WHERE o.sha256 = p.sha256 AND q.study_id <> study);
  UPDATE instances SET header = '{}', peer_address = '', erased_at = coalesce(erased_at, now()) WHERE study_id = study;
  UPDATE series SET series_description = '', body_part_examined = '' WHERE study_id = study;
  UPDATE studies SET patient_id_key = NULL, patient_id = '', issuer_of_patient_id = '', patient_name = '',
    patient_birth_date = '', patient_sex = '', patient_age = '', accession_number = '', study_date = '',
    study_time = '', study_description = '', referring_physician_name = '', history = '',
    erased_at = now(), updated_at = now()
    WHERE id = study;
  DELETE FROM patients p WHERE p.id = patient AND NOT EXISTS (SELECT FROM studies s WHERE s.patient_id_key = p.id)
    AND NOT EXISTS (SELECT FROM patients m WHERE m.merged_into_id = p.id);
  INSERT INTO events (id, kind, site_id, actor_kind, actor_id, study_id, facts)
    VALUES (event, 'study_erased', site, actor_kind, actor, study, '{}');
END $$;
