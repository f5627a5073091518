"""The task store on SQLModel: tables, every query, and the migrations."""
