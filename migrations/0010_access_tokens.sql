-- Which bearer tokens of an external issuer are access tokens (RFC 9068): those that say so in their header, unless the
-- issuer cannot. What was registered before is judged strictly from now on. The build before this one reads the table
-- as it did, and what it registers is strict.
ALTER TABLE issuers ADD COLUMN access_tokens_only boolean NOT NULL DEFAULT true;
GRANT SELECT (access_tokens_only), INSERT (access_tokens_only), UPDATE (access_tokens_only) ON issuers
    TO gatehouse_app, gatehouse_admin;
