"""The report page: cassettes with certificates, pictures and lineage in one self-contained HTML file."""
