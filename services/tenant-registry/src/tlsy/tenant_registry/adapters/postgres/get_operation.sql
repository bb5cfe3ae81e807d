select __operation_columns__ from operations where operation_id = $1
